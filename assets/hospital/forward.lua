-- Orthanc passes each nuclear medicine image on to the node.
function OnStoredInstance(instance, tags, metadata, origin)
  if tags['Modality'] == 'NM' then
    SendToModality(instance, 'bonescan')
  end
end
